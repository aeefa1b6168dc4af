// Shows what goes wrong in an example.
const told = (error) => (document.querySelector("p").textContent = String(error));
addEventListener("error", ({ error, message }) => told(error ?? message));
addEventListener("unhandledrejection", ({ reason }) => told(reason));
