"""Events: what happened to models, and who did it, told to EventBridge and never lost on the way."""
