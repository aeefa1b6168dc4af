// Conversations in the browser's database, preferences and drafts in its small storage. Messages are rows of their
// own, so that two tabs that write to one conversation do not overwrite each other.

const NAME = "tessera";
const VERSION = 1;

const asked = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** The store; `kept` is false if this browser keeps nothing and the conversations end with the tab. */
export async function openStore() {
  try {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("messages", { keyPath: "id" }).createIndex("conversation", "conversation");
    };
    const db = await asked(request);
    // A newer page in another tab may upgrade.
    db.onversionchange = () => db.close();
    return new Store(db);
  } catch {
    return new Memory();
  }
}

class Store {
  kept = true;

  constructor(db) {
    this.db = db;
  }

  #run(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.db.transaction(["conversations", "messages"], mode);
      let result;
      transaction.oncomplete = () => resolve(result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the database refused"));
      Promise.resolve(work(transaction.objectStore("conversations"), transaction.objectStore("messages")))
        .then((value) => (result = value))
        .catch(reject);
    });
  }

  conversations() {
    return this.#run("readonly", (conversations) => asked(conversations.getAll()));
  }

  messages(conversation) {
    return this.#run("readonly", (_, messages) => asked(messages.index("conversation").getAll(conversation)));
  }

  /** Writes conversations and messages, all or none. */
  put(conversations, messages) {
    return this.#run("readwrite", (c, m) => {
      conversations.forEach((row) => c.put(row));
      messages.forEach((row) => m.put(row));
    });
  }

  remove(conversations, messages) {
    return this.#run("readwrite", (c, m) => {
      conversations.forEach((id) => c.delete(id));
      messages.forEach((id) => m.delete(id));
    });
  }
}

/** The same without a database. */
class Memory {
  kept = false;
  rows = new Map();
  lines = new Map();

  async conversations() {
    return structuredClone([...this.rows.values()]);
  }

  async messages(conversation) {
    return structuredClone([...this.lines.values()].filter((m) => m.conversation === conversation));
  }

  async put(conversations, messages) {
    for (const row of structuredClone(conversations)) this.rows.set(row.id, row);
    for (const row of structuredClone(messages)) this.lines.set(row.id, row);
  }

  async remove(conversations, messages) {
    conversations.forEach((id) => this.rows.delete(id));
    messages.forEach((id) => this.lines.delete(id));
  }
}

// Where even the small storage is closed, what it would hold lasts as long as the page.
const fallback = new Map();

/** A preference or a draft; null if there is none. */
export function recall(name) {
  try {
    return localStorage.getItem(`tessera.${name}`);
  } catch {
    return fallback.get(name) ?? null;
  }
}

export function remember(name, text) {
  fallback.set(name, text);
  try {
    if (text === null || text === "") localStorage.removeItem(`tessera.${name}`);
    else localStorage.setItem(`tessera.${name}`, text);
  } catch {
    // Full or closed: the page itself still has it.
  }
}
