//! Entries in a table of our own TOML file, one per runtime name: what the modules of CRI-O and Podman share.

use toml_edit::DocumentMut;

use super::{Chain, ConfigureError, Site};
use crate::toml_file::{self, TomlFile};

/// Where an engine has its runtimes.
#[derive(Debug)]
pub(super) struct Entries {
    /// Keys of the table that has an entry per name.
    pub(super) table: &'static [&'static str],
    /// Keys of the name of the default runtime.
    pub(super) default: &'static [&'static str],
    /// What happens where the default is missing.
    pub(super) loss: &'static str,
    /// Whether the entry of the site's name, if there is one, may be changed by us.
    pub(super) check: fn(&Site, &TomlFile) -> Result<(), ConfigureError>,
}

impl Entries {
    /// Keys of an entry.
    fn keys<'n>(&self, name: &'n str) -> Vec<&'n str> {
        self.table.iter().copied().chain([name]).collect()
    }

    /// Names in our own file that are ours.
    pub(super) fn names(&self, site: &Site, chain: &Chain) -> Vec<String> {
        let Some(own) = &chain.own else {
            return Vec::new();
        };
        let table = own.table(self.table).into_iter();
        let names = table.flat_map(|table| table.iter().map(|(name, _)| name.to_owned()));
        let is_ours = |name: &String| {
            let site = Site {
                name: name.clone(),
                ..site.clone()
            };
            (self.check)(&site, own).is_ok()
        };
        names.filter(is_ours).collect()
    }

    /// Our own file without the entry; `None` if there is no such file.
    pub(super) fn without<'c>(
        &self,
        site: &Site,
        chain: &'c Chain,
    ) -> Result<Option<(&'c TomlFile, DocumentMut)>, ConfigureError> {
        let mut others = chain.others();
        if let Some(file) = others.find(|file| file.text(self.default) == Some(&site.name)) {
            return Err(ConfigureError::StillDefault {
                at: file.at(self.default),
                name: site.name.clone(),
                loss: self.loss,
            });
        }
        let Some(own) = &chain.own else {
            return Ok(None);
        };
        (self.check)(site, own)?;
        let mut document = own.edit();
        toml_file::remove(&mut document, &self.keys(&site.name));
        if own.text(self.default) == Some(&site.name) {
            toml_file::remove(&mut document, self.default);
        }
        Ok(Some((own, document)))
    }

    /// Our own file to add the entry to, or a new one, and the text that goes before it.
    pub(super) fn with(
        &self,
        site: &Site,
        chain: &Chain,
        header: &'static str,
    ) -> Result<(&'static str, DocumentMut), ConfigureError> {
        match &chain.own {
            Some(own) => {
                (self.check)(site, own)?;
                Ok(("", own.edit()))
            }
            None => Ok((header, DocumentMut::new())),
        }
    }
}

/// The text of a document that still holds something.
pub(super) fn rest(document: &DocumentMut) -> Option<String> {
    (!toml_file::is_empty(document)).then(|| document.to_string())
}
