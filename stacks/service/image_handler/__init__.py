"""The code of the function behind the image's custom resource."""
