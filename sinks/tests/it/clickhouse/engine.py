"""ClickHouse's own engine, as the package chdb-core has it, behind ClickHouse's HTTP interface: `engine.py FOLDER PORT [PORT CERTIFICATE KEY]`.

The second port takes encrypted connections. It lives no longer than its standard input, and takes its folder along where ENGINE_REMOVE says so. What the package lacks is left out: users, roles and row policies. Two users are
known: the one of ENGINE_USER with ENGINE_PASSWORD, where they are set, and `reader`, who may change nothing.
`/lose?inserts=N` makes it carry out the next N inserts and answer nothing.
"""

import http.server
import os
import re
import shutil
import socketserver
import ssl
import sys
import tempfile
import threading
import urllib.parse

from chdb.state import connect

FOLDER, PORT = sys.argv[1], int(sys.argv[2])
DATA = os.path.join(FOLDER, "data")
USER, PASSWORD = os.environ.get("ENGINE_USER"), os.environ.get("ENGINE_PASSWORD")
NO_SETTINGS = {"query", "database", "default_format", "wait_end_of_query", "query_id", "user", "password"}
INSERT = re.compile(r"^\s*INSERT\s.*?(?=\sFORMAT\s+\w+\s*$)", re.IGNORECASE | re.DOTALL)

keep = connect(DATA)
lose = 0
lock = threading.Lock()


class Broken(Exception):
    """The request ended before its body did."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def exactly(self, count):
        data = self.rfile.read(count)
        if len(data) != count:
            raise Broken
        return data

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.exactly(int(self.headers.get("Content-Length") or 0))
        data = b""
        while True:
            size = int(self.rfile.readline().strip() or b"x", 16)
            data += self.exactly(size)
            self.exactly(2)
            if size == 0:
                return data

    def answer(self, status, data, code=None):
        self.send_response(status)
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        global lose
        url = urllib.parse.urlsplit(self.path)
        given = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        try:
            body = self.body()
        except (Broken, ValueError):
            self.close_connection = True
            return
        if url.path == "/lose":
            lose = int(given["inserts"])
            return self.answer(200, b"")
        if url.path == "/ping" or (not body and "query" not in given):
            return self.answer(200, b"Ok.\n")
        user = self.headers.get("X-ClickHouse-User")
        if USER and user != "reader" and (user, self.headers.get("X-ClickHouse-Key")) != (USER, PASSWORD):
            text = f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)\n"
            return self.answer(403, text.encode(), "516")
        sql, insert = given.get("query", ""), None
        found = INSERT.match(sql)
        if found and body:
            insert = tempfile.NamedTemporaryFile(dir=FOLDER, suffix=".insert")
            insert.write(body)
            insert.flush()
            sql = f"{found.group()} FROM INFILE '{insert.name}' {sql[found.end():]}"
        else:
            sql += body.decode()
        connection = connect(DATA)
        try:
            for name, value in given.items():
                if name not in NO_SETTINGS:
                    connection.query("SET {} = '{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'")))
            if user == "reader":
                connection.query("SET readonly = 2")
            data = connection.query(sql, given.get("default_format", "TabSeparated")).bytes()
        except Exception as error:
            text = str(error)
            code = re.search(r"Code: (\d+)", text)
            return self.answer(500, text.encode(), code.group(1) if code else "1002")
        finally:
            connection.close()
            if insert:
                insert.close()
        with lock:
            lost = insert is not None and lose > 0
            lose -= lost
        if lost:
            self.close_connection = True
            return
        self.answer(200, bytes(data))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def to_the_end():
    sys.stdin.buffer.read()
    if os.environ.get("ENGINE_REMOVE"):
        shutil.rmtree(FOLDER, ignore_errors=True)
    os._exit(0)


threading.Thread(target=to_the_end, daemon=True).start()
server = Server(("127.0.0.1", PORT), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4], sys.argv[5])
    encrypted = Server(("127.0.0.1", int(sys.argv[3])), Handler)
    # Hands are shaken where a connection is read, in its own thread.
    encrypted.socket = context.wrap_socket(encrypted.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=encrypted.serve_forever, daemon=True).start()
print("ready", flush=True)
server.serve_forever()
