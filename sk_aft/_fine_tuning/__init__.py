"""Foundation models that learn a task from its labelled rows."""
