"""Training with salience in the loss: people's maps, a SHAM mask or none."""
