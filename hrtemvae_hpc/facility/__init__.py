"""What a computing facility needs: the image, a check of the environment, and sessions of many movies."""
