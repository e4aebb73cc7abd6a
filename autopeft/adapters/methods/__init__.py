"""PEFT methods in torch: what stock peft has is driven by ``stock``, what it lacks gets a file of its own."""
