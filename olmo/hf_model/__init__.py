"""Reading and describing models in the Hugging Face format of Molmo2."""
