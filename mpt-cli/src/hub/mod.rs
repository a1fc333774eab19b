//! Client of the Hugging Face hub. It downloads and verifies the files of a model repository, into the shared cache or
//! a folder.
//!
//! `config.rs` holds the `HF_*` variables, `name.rs` checked names, `url.rs` URLs and redirects, `client.rs` requests,
//! `retry.rs` the backoff between them, `listing.rs` the selection of files, `digest.rs` hashes, `download.rs` one
//! file, `destination.rs` the layout of the cache, `offline.rs` lookup without a network, `disk.rs` errors of the disk.

mod client;
mod config;
mod destination;
mod digest;
mod disk;
mod download;
mod listing;
mod name;
mod offline;
mod retry;
mod url;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::exit::CliError;
use crate::hub::client::Client;
use crate::hub::config::HubConfig;
use crate::hub::destination::Destination;
use crate::hub::download::Downloader;
use crate::hub::listing::{Listing, RemoteFile};
use crate::output::Log;
use crate::progress::{ProgressBar, Unit};

pub(crate) use crate::hub::name::{RepoId, Revision};

/// Model to pull, and its destination.
#[derive(Debug)]
pub(crate) struct PullOptions {
    /// Repository.
    pub(crate) repo: RepoId,
    /// Branch, tag or commit.
    pub(crate) revision: Revision,
    /// Destination folder; the shared cache if `None`.
    pub(crate) dir: Option<PathBuf>,
}

/// Local files of a model at one commit.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    /// Folder of the files.
    #[serde(serialize_with = "crate::output::serialize_path")]
    pub(crate) path: PathBuf,
    /// Commit; unknown for a plain folder that was read offline.
    pub(crate) revision: Option<String>,
    /// Files, in the order of download.
    pub(crate) files: Vec<SnapshotFile>,
    /// Sum of their sizes.
    pub(crate) bytes: u64,
}

/// File of a [`Snapshot`].
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SnapshotFile {
    /// Name below the folder.
    pub(crate) name: String,
    /// Size.
    pub(crate) bytes: u64,
}

/// Downloads the files that mpt reads and that are not local yet. Offline, it looks up a complete download.
///
/// # Errors
/// Exit status 2 for an invalid `HF_*` variable, 3 for files that the hub lacks or refuses, 4 for network and disk, 130
/// if `stop` was set. An incomplete download is kept and resumed by the next call.
pub(crate) fn pull(
    options: &PullOptions,
    log: &Log,
    stop: &'static AtomicBool,
) -> Result<Snapshot, CliError> {
    let config = HubConfig::from_process()?;
    if config.offline {
        return offline::find(options, &config.cache);
    }
    let client = Client::new(&config, options, log, stop)?;
    let listing = client.listing()?;
    let destination = Destination::new(options, &config.cache, &listing.commit);
    destination.create_dirs()?;
    download_all(&client, &listing, &destination)?;
    destination.write_ref(&options.revision)?;
    Ok(snapshot(&destination, listing))
}

fn download_all(client: &Client, listing: &Listing, destination: &Destination) -> Result<(), CliError> {
    let bar = ProgressBar::start(client.log(), client.repo_name(), Unit::Bytes, Some(listing.bytes));
    let mut downloader = Downloader::new(client, &listing.commit, bar);
    for file in &listing.files {
        ensure_downloaded(&mut downloader, client, destination, file)?;
        destination.create_link(file)?;
    }
    downloader.finish(listing.files.len());
    Ok(())
}

/// Downloads a file unless it is complete, in one process at a time.
fn ensure_downloaded(
    downloader: &mut Downloader<'_>,
    client: &Client,
    destination: &Destination,
    file: &RemoteFile,
) -> Result<(), CliError> {
    if destination.contains(file, client.stop())? {
        downloader.skip(file.size);
        return Ok(());
    }
    let (_lock, waited) = destination.lock(file, client)?;
    if waited && destination.contains(file, client.stop())? {
        downloader.skip(file.size);
        return Ok(());
    }
    downloader.download(file, &destination.incomplete_path(file), &destination.final_path(file))
}

fn snapshot(destination: &Destination, listing: Listing) -> Snapshot {
    let files = listing.files.into_iter().map(|file| SnapshotFile { name: file.name, bytes: file.size });
    Snapshot {
        path: destination.dir(),
        revision: Some(listing.commit),
        files: files.collect(),
        bytes: listing.bytes,
    }
}
