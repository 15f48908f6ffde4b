"""Health monitoring, repair ladders and alerts: settings and pure cores first, sockets and tasks around them."""
