// Before the first paint, so that a dark page does not flash white. No module: those wait for the document.
try {
  const theme = localStorage.getItem("tessera.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser without storage follows the system.
}
