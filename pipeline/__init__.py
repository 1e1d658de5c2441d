"""What two or more stages share: settings, files, images, the network, the map."""
