"""What plans take: flops and bytes counted, seconds predicted from the measured rates of a device."""
