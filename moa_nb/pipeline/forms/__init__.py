"""Forms: what an answer must be where it is more than text, and how several such answers become one.

A form is declared as people declare one (``declared``), shown to services and models (``shown``), read from what
a model wrote (``form``), and settled field by field between several answers (``fields``).
"""

from __future__ import annotations

from moa_nb.pipeline.forms.form import Form, form

__all__ = ["Form", "form"]
