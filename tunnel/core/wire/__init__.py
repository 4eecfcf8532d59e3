"""What two ends say to each other: frames, their bytes, targets, names, codes and bounds."""
