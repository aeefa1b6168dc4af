// The question for an API key.

import { apiKey, setApiKey } from "./api.js";
import { $ } from "./dom.js";

let asking = null;

/** Asks for a key once, however many requests were refused; true if one was given. */
export function askForKey(why) {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    $("key-why").textContent = why;
    $("key").value = apiKey();
    dialog.returnValue = "";
    dialog.showModal();
    $("key").select();
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "use" && $("key").value.trim() !== "";
      if (given) setApiKey($("key").value.trim(), $("key-keep").checked);
      $("key").value = "";
      resolve(given);
    }, { once: true });
  });
  return asking;
}

$("key-ok").value = "use";
$("key-cancel").addEventListener("click", () => $("key-dialog").close(""));
