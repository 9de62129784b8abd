"""What the user configured, and where each value came from. The only room that reads the environment."""

from __future__ import annotations

from moa_nb.settings.folders import data_folder, fence_secret, project_folder, template_folders, user_folder
from moa_nb.settings.known import Service, services
from moa_nb.settings.layers import configure, current, explain, reset, services_with_keys
from moa_nb.settings.values import ROLES, ModelSettings, Provider, ProviderSettings, Settings

__all__ = [
    "ROLES",
    "ModelSettings",
    "Provider",
    "ProviderSettings",
    "Service",
    "Settings",
    "configure",
    "current",
    "data_folder",
    "explain",
    "fence_secret",
    "project_folder",
    "reset",
    "services",
    "services_with_keys",
    "template_folders",
    "user_folder",
]
