"""The applications that ship with Callboard, each a plug-in like any user's."""
