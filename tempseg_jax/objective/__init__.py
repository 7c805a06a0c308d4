"""What the two players minimize: the terms of L_G and of L_D."""
