"""A made-up short-video site: the files of MicroLens-50k, drawn from latent topics and motions, and a server for it."""
