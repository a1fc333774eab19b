//! `mpt pull` against healthy and faulty local servers.

mod server;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{
    COMMIT, CannedResponse, FIRST, Files, RecordedRequest, SECOND, Server, hash, listing, model, respond_well,
};

use crate::{Run, finish, mpt};

/// Files of [`model`] that are downloaded, in this order.
const FETCHED: [&str; 5] = ["config.json", "tokenizer.json", "model.safetensors.index.json", FIRST, SECOND];

/// `mpt pull org/name` with an environment of its own, without this machine's hub settings or proxies.
fn pull(home: &Path, endpoint: &str, args: &[&str]) -> Command {
    let mut command = mpt();
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        if upper.starts_with("HF_") || upper.ends_with("_PROXY") || upper == "SSL_CERT_FILE" {
            command.env_remove(name);
        }
    }
    command.env("HF_HOME", home).env("HF_ENDPOINT", endpoint).args(["pull", "org/name"]).args(args);
    command
}

fn pulled(home: &Path, server: &Server, args: &[&str]) -> Run {
    finish(&mut pull(home, &server.url, args))
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn repo(home: &Path) -> PathBuf {
    home.join("hub/models--org--name")
}

fn snapshot(home: &Path) -> PathBuf {
    repo(home).join("snapshots").join(COMMIT)
}

fn bytes_of(files: &Files, name: &str) -> Vec<u8> {
    files.iter().find(|(file, ..)| *file == name).expect("a file").1.clone()
}

/// Checks that `dir` holds the complete files of [`model`] and nothing else.
fn assert_model(dir: &Path) {
    let files = model();
    for name in FETCHED {
        assert!(std::fs::read(dir.join(name)).expect("readable") == bytes_of(&files, name), "{name}");
    }
    let names = names(dir);
    let visible: Vec<_> = names.iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(visible.len(), FETCHED.len(), "{names:?}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("listable");
    entries.map(|entry| entry.expect("listable").file_name().into_string().expect("UTF-8")).collect()
}

/// Hub that sends the first response for [`FIRST`] through `first`, and is healthy otherwise.
fn bad_at_first(first: impl Fn(CannedResponse) -> CannedResponse + Send + Sync + 'static) -> Server {
    let files = model();
    Server::start(move |request, before| {
        let response = respond_well(&files, request);
        if request.path.ends_with(FIRST) && before == 0 { first(response) } else { response }
    })
}

fn good_hub() -> Server {
    bad_at_first(|response| response)
}

#[test]
fn a_folder_gets_what_mpt_needs_and_nothing_else() {
    let (home, server) = (home(), good_hub());
    let dir = home.path().join("model");
    let args = ["--dir", dir.to_str().expect("UTF-8"), "--json"];
    let run = pulled(home.path(), &server, &args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_model(&dir);
    let document: Value = serde_json::from_str(&run.stdout).expect("one document");
    assert_eq!((&document["path"], &document["revision"]), (&json!(dir), &json!(COMMIT)));
    let names: Vec<_> =
        document["files"].as_array().expect("files").iter().map(|file| &file["name"]).collect();
    assert_eq!(names, FETCHED);
    let sum: usize = FETCHED.iter().map(|name| bytes_of(&model(), name).len()).sum();
    assert_eq!(document["bytes"], sum);
    assert!(!home.path().join("hub").exists());

    let requests = server.requests().len();
    std::fs::write(dir.join("config.json"), "[]").expect("writable");
    assert_eq!(pulled(home.path(), &server, &args).code, 0);
    assert_model(&dir);
    assert_eq!(server.requests().len(), requests + 2, "the list, and the file that was changed");
}

#[test]
fn the_cache_has_the_layout_of_other_clients() {
    let (home, server) = (home(), good_hub());
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(
        (run.code, run.stdout),
        (0, format!("{}\n", snapshot(home.path()).display())),
        "{}",
        run.stderr
    );
    assert_model(&snapshot(home.path()));
    for (name, bytes, large) in model().iter().filter(|(name, ..)| FETCHED.contains(name)) {
        let blob = hash(bytes, *large);
        let link = std::fs::read_link(snapshot(home.path()).join(name)).expect("a link");
        assert_eq!(link, Path::new("../../blobs").join(&blob));
        assert!(std::fs::read(repo(home.path()).join("blobs").join(blob)).expect("readable") == *bytes);
    }
    assert_eq!(std::fs::read_to_string(repo(home.path()).join("refs/main")).expect("readable"), COMMIT);
    assert_eq!(names(&repo(home.path()).join("blobs")).len(), FETCHED.len());

    let requests = server.requests().len();
    assert_eq!(pulled(home.path(), &server, &[]).code, 0);
    assert_eq!(server.requests().len(), requests + 1, "nothing is fetched twice");
}

#[test]
fn a_broken_connection_is_continued() {
    let (home, server) = (home(), bad_at_first(|response| response.truncated_at(123_456)));
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_model(&snapshot(home.path()));
    let from: Vec<_> = server.requests_for(FIRST).iter().map(|request| request.from).collect();
    assert_eq!(from, [None, Some(123_456)]);
}

#[test]
fn a_server_that_cannot_continue_starts_again() {
    let files = model();
    let server = Server::start(move |request, before| {
        let response = respond_well(&files, &RecordedRequest { from: None, ..request.clone() });
        if request.path.ends_with(FIRST) && before == 0 { response.truncated_at(1000) } else { response }
    });
    let home = home();
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_model(&snapshot(home.path()));
    assert_eq!(server.requests_for(FIRST).len(), 2);
}

#[test]
fn wrong_bytes_are_fetched_again() {
    let (home, server) = (home(), bad_at_first(|response| CannedResponse::ok(vec![0; response.body.len()])));
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("its hash is"), "{}", run.stderr);
    assert_model(&snapshot(home.path()));
}

#[test]
fn a_partial_file_with_wrong_bytes_is_thrown_away() {
    let (home, server) = (home(), good_hub());
    let blobs = repo(home.path()).join("blobs");
    std::fs::create_dir_all(&blobs).expect("creatable");
    let hash = hash(&bytes_of(&model(), FIRST), true);
    std::fs::write(blobs.join(format!("{hash}.incomplete")), "not its beginning").expect("writable");
    assert_eq!(pulled(home.path(), &server, &[]).code, 0);
    assert_model(&snapshot(home.path()));
}

#[test]
fn bytes_that_stay_wrong_are_an_error_and_not_kept() {
    let files = model();
    for wrong in [vec![0; 300_000], vec![0; 300_001]] {
        let files = files.clone();
        let server = Server::start(move |request, _| match request.path.ends_with(FIRST) {
            true => CannedResponse::ok(wrong.clone()),
            false => respond_well(&files, request),
        });
        let home = home();
        let run = pulled(home.path(), &server, &[]);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains(FIRST) && run.stderr.contains("3 times"), "{}", run.stderr);
        assert!(names(&repo(home.path()).join("blobs")).iter().all(|name| !name.ends_with(".incomplete")));
        assert!(!repo(home.path()).join("refs/main").exists());
    }
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let files = model();
    let server = Server::start(move |request, before| match before {
        0 if request.path.starts_with("/api/") => CannedResponse::status(500),
        0 if request.path.ends_with(FIRST) => CannedResponse::status(429).with("retry-after", "1"),
        _ => respond_well(&files, request),
    });
    let (home, began) = (home(), Instant::now());
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(began.elapsed() >= Duration::from_secs(1), "the server asked for a second");
    assert_model(&snapshot(home.path()));
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let (home, server) = (home(), stalling());
    let run = finish(pull(home.path(), &server.url, &[]).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("timeout"), "{}", run.stderr);
    assert_model(&snapshot(home.path()));
}

#[test]
fn a_server_in_lasting_trouble_is_given_up() {
    let server = Server::start(|_, _| CannedResponse::status(503).with("retry-after", "0"));
    let home = home();
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stderr.contains("error: 127.0.0.1: the server answers 503"), "{}", run.stderr);
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn a_signed_address_that_expired_is_asked_for_anew() {
    let files = model();
    let store = Server::start(move |request, before| match before {
        0 => CannedResponse::status(403),
        _ => respond_well(&files, request),
    });
    let (files, elsewhere) = (model(), store.url.clone());
    let hub = Server::start(move |request, _| match &*request.path {
        path if path.ends_with(FIRST) => {
            CannedResponse::status(302).with("location", format!("{elsewhere}{path}"))
        }
        _ => respond_well(&files, request),
    });
    let home = home();
    assert_eq!(pulled(home.path(), &hub, &[]).code, 0);
    assert_model(&snapshot(home.path()));
    assert_eq!(hub.requests_for(FIRST).len(), 2);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let files = model();
    let store = Server::start(move |request, _| respond_well(&files, request));
    let (files, elsewhere) = (model(), store.url.clone());
    let hub = Server::start(move |request, _| match &*request.path {
        path if path.ends_with(FIRST) => {
            CannedResponse::status(302).with("location", format!("{elsewhere}{path}"))
        }
        path if path.ends_with(SECOND) => CannedResponse::status(307).with("location", "/moved?x=1"),
        "/moved?x=1" => CannedResponse::ok(bytes_of(&files, SECOND)),
        _ => respond_well(&files, request),
    });
    let home = home();
    let run = finish(pull(home.path(), &hub.url, &["-vv"]).env("HF_TOKEN", "hf_secret"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_model(&snapshot(home.path()));
    assert!(!run.stderr.contains("hf_secret"));
    let with_token = |request: &RecordedRequest| request.authorization.as_deref() == Some("Bearer hf_secret");
    assert!(hub.requests().iter().all(with_token));
    assert_eq!(hub.requests_for("/moved?x=1").len(), 1);
    assert_eq!(store.requests().len(), 1);
    assert!(store.requests().iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_token_file_is_used_too() {
    let (home, server) = (home(), good_hub());
    std::fs::write(home.path().join("token"), "hf_file\n").expect("writable");
    assert_eq!(pulled(home.path(), &server, &[]).code, 0);
    assert!(
        server.requests().iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_file"))
    );
}

#[test]
fn redirects_have_an_end_and_stay_on_the_web() {
    for location in ["/again", "file:///etc/passwd", "https://me@127.0.0.1/", "http://"] {
        let server = Server::start(move |_, _| CannedResponse::status(302).with("location", location));
        let home = home();
        let run = pulled(home.path(), &server, &[]);
        assert_eq!(run.code, 4, "{location}: {}", run.stderr);
        assert!(run.stderr.contains("redirect"), "{location}: {}", run.stderr);
        assert!(server.requests().len() <= 6);
    }
}

#[test]
fn offline_finds_what_was_downloaded_and_asks_no_one() {
    let (home, server) = (home(), good_hub());
    let offline = || finish(pull(home.path(), &server.url, &["--json"]).env("HF_HUB_OFFLINE", "1"));
    let nothing = offline();
    assert_eq!((nothing.code, nothing.stdout.as_str()), (3, ""));
    assert!(nothing.stderr.contains("not in the cache") && nothing.stderr.contains("HF_HUB_OFFLINE"));

    let online = pulled(home.path(), &server, &["--json"]);
    let requests = server.requests().len();
    let found = offline();
    assert_eq!((found.code, found.stdout), (0, online.stdout), "{}", found.stderr);
    let by_commit = finish(
        pull(home.path(), &server.url, &["--revision", COMMIT, "--json"]).env("HF_HUB_OFFLINE", "true"),
    );
    assert_eq!(by_commit.code, 0, "{}", by_commit.stderr);
    assert_eq!(server.requests().len(), requests);

    std::fs::remove_file(snapshot(home.path()).join(SECOND)).expect("removable");
    let incomplete = offline();
    assert_eq!(incomplete.code, 3);
    assert!(incomplete.stderr.contains(SECOND), "{}", incomplete.stderr);
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in [
        "../evil.safetensors",
        "/tmp/evil.safetensors",
        "a\\b.safetensors",
        "a/../../config.json",
        "a\0.gguf",
    ] {
        let mut answer = listing(&model());
        answer["siblings"][0]["rfilename"] = name.into();
        let server = Server::start(move |_, _| CannedResponse::ok(answer.to_string()));
        let home = home();
        let run = pulled(home.path(), &server, &[]);
        assert_eq!(run.code, 3, "{name}: {}", run.stderr);
        assert_eq!(server.requests().len(), 1, "nothing is fetched");
        assert!(!home.path().join("hub").exists());
    }
}

#[test]
fn an_answer_that_is_no_list_or_too_long_is_refused() {
    for body in [b"<html>sign in</html>".to_vec(), b"{}".to_vec(), vec![b' '; 17 << 20]] {
        let server = Server::start(move |_, _| CannedResponse::ok(body.clone()));
        let home = home();
        let run = pulled(home.path(), &server, &[]);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains("help: check HF_ENDPOINT"), "{}", run.stderr);
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (response, expected) in [
        (CannedResponse::status(401).with("x-error-code", "GatedRepo"), "set HF_TOKEN"),
        (CannedResponse::status(403), "set HF_TOKEN"),
        (CannedResponse::status(404), "check the name"),
        (CannedResponse::status(404).with("x-error-code", "RevisionNotFound"), "no revision `main`"),
    ] {
        let server = Server::start(move |_, _| response.clone());
        let home = home();
        let run = pulled(home.path(), &server, &[]);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
        assert_eq!(server.requests().len(), 1, "a refusal is not asked for again");
    }
}

#[test]
fn wrong_names_are_usage_errors() {
    let home = home();
    for args in [["../x", "--revision=main"], ["a/b/c", "--revision=main"], ["a/b", "--revision=../x"]] {
        let run = finish(mpt().env("HF_HOME", home.path()).arg("pull").args(args));
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
    }
}

#[test]
#[cfg(unix)]
fn a_full_disk_says_so() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full here");
        return;
    }
    let (home, server) = (home(), good_hub());
    let blobs = repo(home.path()).join("blobs");
    std::fs::create_dir_all(&blobs).expect("creatable");
    let hash = hash(&bytes_of(&model(), FIRST), true);
    std::os::unix::fs::symlink("/dev/full", blobs.join(format!("{hash}.incomplete"))).expect("linkable");
    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stderr.contains("help: make room"), "{}", run.stderr);
}

/// Hub that stalls after half of [`FIRST`] on the first request for it.
fn stalling() -> Server {
    bad_at_first(|response| CannedResponse {
        linger: Duration::from_secs(60),
        ..response.truncated_at(150_000)
    })
}

/// Starts a pull and waits until half of [`FIRST`] is on disk.
fn started(command: &mut Command, home: &Path) -> Child {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let partial =
        repo(home).join("blobs").join(format!("{}.incomplete", hash(&bytes_of(&model(), FIRST), true)));
    let began = Instant::now();
    while std::fs::metadata(&partial).map_or(0, |data| data.len()) < 150_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "the download does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_killed_download_is_continued() {
    let (home, server) = (home(), stalling());
    let mut child = started(&mut pull(home.path(), &server.url, &[]), home.path());
    child.kill().expect("killable");
    child.wait().expect("ends");
    let offline = finish(pull(home.path(), &server.url, &[]).env("HF_HUB_OFFLINE", "1"));
    assert_eq!(offline.code, 3, "{}", offline.stderr);

    let run = pulled(home.path(), &server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_model(&snapshot(home.path()));
    assert_eq!(server.requests_for(FIRST)[1].from, Some(150_000));
    assert_eq!(server.requests_for("/config.json").len(), 1, "what was done is not done again");
}

#[test]
#[cfg(unix)]
fn an_interrupt_keeps_what_is_there() {
    let (home, server) = (home(), stalling());
    let mut command = pull(home.path(), &server.url, &[]);
    let mut child = started(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1"), home.path());
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("starts");
    assert!(signal.success());
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert_eq!(pulled(home.path(), &server, &[]).code, 0);
    assert_model(&snapshot(home.path()));
    assert_eq!(server.requests_for(FIRST)[1].from, Some(150_000));
}

#[test]
fn two_at_once_fetch_each_file_once() {
    let (home, server) = (
        home(),
        bad_at_first(|response| {
            std::thread::sleep(Duration::from_secs(1));
            response
        }),
    );
    let mut first = pull(home.path(), &server.url, &[]).stderr(Stdio::null()).spawn().expect("starts");
    let second = pulled(home.path(), &server, &[]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(first.wait().expect("ends").success());
    assert_model(&snapshot(home.path()));
    for name in FETCHED {
        assert_eq!(server.requests_for(&format!("/{name}")).len(), 1, "{name}");
    }
}
