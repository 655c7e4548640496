"""What a computing facility needs: the image, a check of where we run, and sessions of many movies."""
