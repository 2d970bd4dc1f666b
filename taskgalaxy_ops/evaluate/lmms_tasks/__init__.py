"""Tasks of our own for lmms-eval: templates that ``lmms.write_easy_vqa`` fills, run by its Python, not by ours."""
