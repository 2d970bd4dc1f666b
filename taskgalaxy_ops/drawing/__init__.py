"""Pictures that are drawn as SVG, of the funnel and of the task types: pages and a release's card show them."""
