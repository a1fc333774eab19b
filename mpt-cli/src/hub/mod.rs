//! A client of the Hugging Face hub: the files of a model repository, verified, in the shared cache or in a folder.
//!
//! One file, one subject: `environment.rs` reads the `HF_*` variables, `name.rs` decides which names are safe,
//! `address.rs` is URLs and redirects, `client.rs` is requests, `retry.rs` what happens when they fail,
//! `listing.rs` what a repository holds and which of it mpt needs, `digest.rs` hashes, `download.rs` one file,
//! `place.rs` where files go, `offline.rs` what is there without asking, `disk.rs` what disks do.

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

/// What to fetch, and where to.
#[derive(Debug)]
pub(crate) struct PullOptions {
    /// The repository.
    pub(crate) repo: RepoId,
    /// Its branch, tag or commit.
    pub(crate) revision: Revision,
    /// A folder for the files; the shared cache where `None`.
    pub(crate) dir: Option<PathBuf>,
}

/// What is there now.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    /// The folder that holds the files.
    #[serde(serialize_with = "crate::output::serialize_path")]
    pub(crate) path: PathBuf,
    /// The commit they are of; unknown for a folder that was only looked at, offline.
    pub(crate) revision: Option<String>,
    /// The files, in the order of fetching.
    pub(crate) files: Vec<SnapshotFile>,
    /// Their sizes summed.
    pub(crate) bytes: u64,
}

/// One file of [`Snapshot`].
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SnapshotFile {
    /// Its name below the folder.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
}

/// Fetches what is not there yet of what mpt needs; offline, finds what was fetched before.
///
/// # Errors
/// Exit status 2 for a bad `HF_*` variable, 3 where the hub has no such files or refuses them, 4 for network and disk,
/// 130 when `stop` was set. What was downloaded by then is kept and continued.
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

/// Downloads a file unless it is there, one process at a time.
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
