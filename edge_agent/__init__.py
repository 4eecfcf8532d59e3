"""The daemon on the box: it dials out to the cloud and connects what comes down the tunnel to local targets."""
