"""The variational autoencoder: its architecture, network, model file and Keras import."""
