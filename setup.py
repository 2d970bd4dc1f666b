"""Which folders go into the wheel, and where: what pyproject.toml cannot say.

`dags/` and `plugins/` lie at the top of the repository, as an Airflow installation has them. In the wheel, the plugin's
package and module lie beside `taskgalaxy_ops`, and the DAG files in it: `taskgalaxy airflow dags` hands them out.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["taskgalaxy_ops*"]), "taskgalaxy_ops._dags", *find_packages("plugins")],
    py_modules=["galaxy_plugin"],
    package_dir={"": "plugins", "taskgalaxy_ops": "taskgalaxy_ops", "taskgalaxy_ops._dags": "dags"},
)
