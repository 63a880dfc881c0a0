"""What did the operator ask for? Read it (`load`), know its shape (`model`), compare it (`diff`), show it (`show`)."""
