//! `exec --cgroup`: cgroups that the container made below its own.

use std::path::PathBuf;

use super::{Cgroup, CgroupError, Result};

impl Cgroup {
    /// The directories that `exec --cgroup` names, each below the container's own. `PATH` is for every hierarchy,
    /// `CONTROLLER[,CONTROLLER…]:PATH` for some (v1).
    ///
    /// # Errors
    /// A path that leads out, or a controller that no hierarchy has.
    pub fn below(&self, requests: &[String]) -> Result<Vec<PathBuf>> {
        let Some(leaves) = self.owned()? else {
            return match requests.first() {
                None => Ok(Vec::new()),
                Some(_) => Err(CgroupError::Invalid(
                    "`--cgroup` needs a container with a cgroup of its own".to_owned(),
                )),
            };
        };
        let mut all = Vec::new();
        for request in requests {
            let (controllers, path) = match request.split_once(':') {
                Some((controllers, path)) => (Some(controllers), path),
                None => (None, request.as_str()),
            };
            if path.split('/').any(|part| part == "..") {
                return Err(CgroupError::Invalid(format!(
                    "`--cgroup`: {path} is not a sub cgroup path"
                )));
            }
            let wanted: Vec<&str> = controllers.map_or_else(Vec::new, |c| c.split(',').collect());
            for controller in &wanted {
                if !leaves.iter().any(|(h, _)| h.has(controller)) {
                    return Err(CgroupError::Invalid(format!(
                        "`--cgroup {request}`: unknown controller {controller}"
                    )));
                }
            }
            let chosen = leaves
                .iter()
                .filter(|(h, _)| controllers.is_none() || wanted.iter().any(|c| h.has(c)));
            all.extend(chosen.map(|(_, leaf)| leaf.join(path.trim_start_matches('/'))));
        }
        Ok(all)
    }
}
