"""From an expression to a plan, and from plans to plans: orders, lowering, derivatives, checkpoints."""
