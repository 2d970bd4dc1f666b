"""What the entry point ``airflow.plugins`` names, so that an installed TaskGalaxy needs nothing in the plugins folder.

Airflow loads its plugins folder first, then the entry points. Of two plugins of one name it skips the second with a
warning and an import error in the UI, and the task SDK of 3.3 drops whatever would follow. So the entry point names no
plugin where the plugins folder has brought ours; Airflow passes over what is no plugin without a word.
"""

from __future__ import annotations

from pathlib import Path

from airflow import settings

import galaxy_plugin


def _in_plugins_folder() -> bool:
    """Whether Airflow's plugins folder holds the module ``galaxy_plugin``, at any depth."""
    if not settings.PLUGINS_FOLDER or galaxy_plugin.__file__ is None:
        return False
    file, folder = Path(galaxy_plugin.__file__), Path(settings.PLUGINS_FOLDER)
    return file.is_relative_to(folder) or file.resolve().is_relative_to(folder.resolve())


PLUGIN = None if _in_plugins_folder() else galaxy_plugin.GalaxyPlugin
