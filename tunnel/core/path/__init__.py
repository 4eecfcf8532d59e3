"""What is known of the way between two ends: deliveries, rates, delays, signs of life."""
