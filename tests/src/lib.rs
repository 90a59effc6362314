//! Helpers of the integration suites.
