"""The middlewares: one file a policy, all after Starlette's convention (see docs/middleware.md)."""
