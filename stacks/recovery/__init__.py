"""What outlives the loss of a region: copies of backups and artifacts, in another one."""
