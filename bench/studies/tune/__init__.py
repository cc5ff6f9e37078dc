"""How cores are split best."""
