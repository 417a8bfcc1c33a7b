"""What other libraries meet: their arrays, what they follow (gradients, programs), their hooks and trees."""
