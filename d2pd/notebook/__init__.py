"""What the notebooks call: the machine, Drive, packages, and a training that goes on."""
