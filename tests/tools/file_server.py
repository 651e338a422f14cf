"""A web server of a folder on this machine, which can be made to fail."""

import http.server
import threading
from contextlib import contextmanager

from path import Path


@contextmanager
def serve(folder: Path, hiccups: int = 0):
    """A server of this folder's files at a URL; each file's first `hiccups` requests break off or fail."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def do_GET(self):
            asked.append(self.path)
            count = asked.count(self.path)
            if count <= hiccups and count % 2:
                self.send_error(503)
            elif count <= hiccups:  # half the file, and the connection ends
                content = (folder / self.path[1:]).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                super().do_GET()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
