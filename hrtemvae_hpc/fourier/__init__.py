"""What is measured from the Fourier plane."""
