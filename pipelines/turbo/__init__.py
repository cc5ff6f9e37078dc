"""The fast pipeline on a CPU: libjpeg-turbo."""
