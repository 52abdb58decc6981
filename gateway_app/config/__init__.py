"""`routes.toml`: its model, loading it, and errors that name the line."""

from gateway_app.config.errors import ConfigError, ConfigErrors
from gateway_app.config.load import load
from gateway_app.config.model import GatewayConfig

__all__ = ["ConfigError", "ConfigErrors", "GatewayConfig", "load"]
