"""What is served over HTTP: answers, the model, and what users say of answers."""
