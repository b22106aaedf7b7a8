"""S3 over HTTP for tests: moto's, with signatures checked, and with the faults that a test asks for.

s3.py PORT [PORT CERTIFICATE KEY]; ends with its input. The second port takes encrypted connections. /-/ is the tests' own:
  POST /-/bucket?name=B                           makes a bucket
  POST /-/faults?bucket=B&lose=P&late=P&refuse=P  per cent of requests: served and not answered, served and answered 503,
                                                  not served and answered 503; &seed=N
                                                  &after=N: the one request after N more is served and not answered
                                                  &keep=N: the next N requests to delete are answered 503
  POST /-/lost?bucket=B                           how many requests of each method were served and not answered
  POST /-/seen?bucket=B                           headers of the last object put there
Buckets named careless-* forget conditions of puts, racy-* look first and put then.
"""
import hashlib, hmac, io, json, logging, os, random, sys, threading, time
from urllib.parse import parse_qsl

logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY, SECRET = os.environ["S3_KEY"], os.environ["S3_SECRET"]
moto = DomainDispatcherApplication(create_backend_app)
# moto looks and puts in two steps.
putting = threading.Lock()
faults, lost, seen, made = {}, {}, {}, set()


def signed(environ):
    try:
        scheme, _, rest = environ["HTTP_AUTHORIZATION"].partition(" ")
        parts = dict(p.strip().split("=", 1) for p in rest.split(","))
        key, _, scope = parts["Credential"].partition("/")
        path, _, query = environ["REQUEST_URI"].partition("?")
        query = "&".join(sorted(p if "=" in p else p + "=" for p in query.split("&") if p))
        names = parts["SignedHeaders"].split(";")
        plain = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
        value = lambda n: environ[plain.get(n, "HTTP_" + n.upper().replace("-", "_"))].strip()
        headers = "".join(f"{n}:{value(n)}\n" for n in names)
        lines = [environ["REQUEST_METHOD"], path, query, headers, ";".join(names), environ["HTTP_X_AMZ_CONTENT_SHA256"]]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        text = "\n".join([scheme, environ["HTTP_X_AMZ_DATE"], scope, digest])
        derived = ("AWS4" + SECRET).encode()
        for part in scope.split("/"):
            derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
        right = hmac.new(derived, text.encode(), hashlib.sha256).hexdigest()
        return "InvalidAccessKeyId" if key != KEY else None if right == parts["Signature"] else "SignatureDoesNotMatch"
    except (KeyError, ValueError):
        return "AccessDenied"


def answer(start_response, status, text):
    body = text.encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def refusal(start_response, status, code):
    return answer(start_response, status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>")


def asked(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    what = environ["PATH_INFO"]
    if what == "/-/bucket":
        s3_backends["123456789012"]["aws"].create_bucket(query["name"], "us-east-1")
    elif what == "/-/faults":
        bucket, dice = query.pop("bucket"), random.Random(int(query.pop("seed", "0")))
        faults[bucket] = (dice, {name: int(share) for name, share in query.items()})
    elif what == "/-/lost":
        return answer(start_response, "200 OK", json.dumps(lost.get(query["bucket"], {})))
    elif what == "/-/seen":
        return answer(start_response, "200 OK", json.dumps(seen.get(query["bucket"], {})))
    return answer(start_response, "200 OK", "")


def fate_of(bucket, deletes):
    if bucket not in faults:
        return None
    dice, shares = faults[bucket]
    with putting:
        if deletes and shares.get("keep", 0) > 0:
            shares["keep"] -= 1
            return "refuse"
        if "after" in shares:
            shares["after"] -= 1
            return "lose" if shares["after"] == -1 else None
        thrown = dice.randrange(100)
    for name in ("refuse", "lose", "late"):
        if thrown < shares.get(name, 0):
            return name
        thrown -= shares.get(name, 0)
    return None


def app(environ, start_response):
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path.startswith("/-/"):
        return asked(environ, start_response)
    # Read whole whatever becomes of the request: what follows on the connection is the next one.
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    wrong = signed(environ)
    if wrong:
        return refusal(start_response, "403 Forbidden", wrong)
    bucket = path.split("/")[1]
    conditional = "HTTP_IF_NONE_MATCH" in environ
    if method == "PUT":
        seen[bucket] = {k[5:].lower().replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_X_AMZ_SERVER")}
    if conditional and bucket.startswith(("careless-", "racy-")):
        del environ["HTTP_IF_NONE_MATCH"]
        if bucket.startswith("racy-"):
            if path in made:
                return refusal(start_response, "412 Precondition Failed", "PreconditionFailed")
            time.sleep(0.01)
            made.add(path)
    fate = fate_of(bucket, method == "DELETE" or (method == "POST" and "delete" in environ["QUERY_STRING"]))
    if fate == "refuse":
        return refusal(start_response, "503 Slow Down", "SlowDown")
    told = {}
    collect = lambda status, headers, info=None: told.update(status=status, headers=headers)
    if conditional:
        with putting:
            chunks = list(moto(environ, collect))
    else:
        chunks = list(moto(environ, collect))
    if fate == "lose":
        with putting:
            of = lost.setdefault(bucket, {})
            of[method] = of.get(method, 0) + 1
        environ["werkzeug.socket"].shutdown(2)
        raise ConnectionResetError
    if fate == "late":
        return refusal(start_response, "503 Slow Down", "SlowDown")
    start_response(told["status"], told["headers"])
    return chunks


WSGIRequestHandler.protocol_version = "HTTP/1.1"
WSGIRequestHandler.log = lambda *_: None
if len(sys.argv) > 2:
    encrypted = make_server("127.0.0.1", int(sys.argv[2]), app, threaded=True, ssl_context=(sys.argv[3], sys.argv[4]))
    encrypted.daemon_threads = True
    threading.Thread(target=encrypted.serve_forever, daemon=True).start()
server = make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True)
server.daemon_threads = True
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("ready", flush=True)
server.serve_forever()
