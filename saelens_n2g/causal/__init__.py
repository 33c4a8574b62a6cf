"""What units do to a model: counterfactual patching on a task, ablation of one unit, and what follows downstream."""
