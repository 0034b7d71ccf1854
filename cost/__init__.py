"""What a deployment costs a month by list prices, from its synthesized templates."""
