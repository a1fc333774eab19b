//! A client of the Hugging Face hub: the files of a model repository, verified, in the shared cache or in a folder.
//!
//! One file, one subject: `environment.rs` reads the `HF_*` variables, `name.rs` decides which names are safe,
//! `address.rs` is URLs and redirects, `client.rs` is requests, `retry.rs` what happens when they fail,
//! `listing.rs` what a repository holds and which of it mpt needs, `digest.rs` hashes, `download.rs` one file,
//! `place.rs` where files go, `offline.rs` what is there without asking, `disk.rs` what disks do.

mod address;
mod client;
mod digest;
mod disk;
mod download;
mod environment;
mod listing;
mod name;
mod offline;
mod place;
mod retry;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::exit::CliError;
use crate::hub::client::Client;
use crate::hub::download::Transfer;
use crate::hub::environment::Environment;
use crate::hub::listing::{Listing, RemoteFile};
use crate::hub::place::Place;
use crate::output::Log;
use crate::tui::{Bar, Unit};

pub(crate) use crate::hub::name::{Repo, Revision};

/// What to fetch, and where to.
#[derive(Debug)]
pub(crate) struct Request {
    /// The repository.
    pub(crate) repo: Repo,
    /// Its branch, tag or commit.
    pub(crate) revision: Revision,
    /// A folder for the files; the shared cache where `None`.
    pub(crate) dir: Option<PathBuf>,
}

/// What is there now.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    /// The folder that holds the files.
    #[serde(serialize_with = "crate::output::as_text")]
    pub(crate) path: PathBuf,
    /// The commit they are of; unknown for a folder that was only looked at, offline.
    pub(crate) revision: Option<String>,
    /// The files, in the order of fetching.
    pub(crate) files: Vec<PulledFile>,
    /// Their sizes summed.
    pub(crate) bytes: u64,
}

/// One file of [`Pulled`].
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PulledFile {
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
pub(crate) fn pull(request: &Request, log: &Log, stop: &'static AtomicBool) -> Result<Pulled, CliError> {
    let environment = Environment::from_process()?;
    if environment.offline {
        return offline::find(request, &environment.cache);
    }
    let client = Client::new(&environment, request, log, stop)?;
    let listing = client.listing()?;
    let place = Place::new(request, &environment.cache, &listing.commit);
    place.prepare()?;
    fetch(&client, &listing, &place)?;
    place.finish(&request.revision)?;
    Ok(pulled(&place, listing))
}

fn fetch(client: &Client, listing: &Listing, place: &Place) -> Result<(), CliError> {
    let bar = Bar::start(client.log(), client.name(), Unit::Bytes, Some(listing.bytes));
    let mut transfer = Transfer::new(client, &listing.commit, bar);
    for file in &listing.files {
        obtain(&mut transfer, client, place, file)?;
        place.link(file)?;
    }
    transfer.finish(listing.files.len());
    Ok(())
}

/// Downloads a file unless it is there, one process at a time.
fn obtain(
    transfer: &mut Transfer<'_>,
    client: &Client,
    place: &Place,
    file: &RemoteFile,
) -> Result<(), CliError> {
    if place.holds(file, client.stop())? {
        transfer.skip(file.size);
        return Ok(());
    }
    let (_lock, waited) = place.lock(file, client)?;
    if waited && place.holds(file, client.stop())? {
        transfer.skip(file.size);
        return Ok(());
    }
    transfer.download(file, &place.partial(file), &place.target(file))
}

fn pulled(place: &Place, listing: Listing) -> Pulled {
    let files = listing.files.into_iter().map(|file| PulledFile { name: file.name, bytes: file.size });
    Pulled {
        path: place.folder(),
        revision: Some(listing.commit),
        files: files.collect(),
        bytes: listing.bytes,
    }
}
