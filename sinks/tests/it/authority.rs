//! A test authority, and the certificate of a server on this machine.

use std::path::Path;
use std::process::Command;

/// Writes `ca.crt`, and `server.crt` and `server.key` for 127.0.0.1, into a folder.
pub fn certificates(folder: &Path) {
    let script = r#"set -e; cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=test-ca -keyout ca.key -out ca.crt
printf 'subjectAltName=IP:127.0.0.1' > names
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out server.crt -extfile names"#;
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
