import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.function.Consumer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Audits the bank's topics at rest, with Kafka's own clients and with nothing of the engine: it knows the wire format from its documentation alone.
 *
 * <p>Arguments: bootstrap servers, group, and the topics of commands, events, outcomes, dead letters and changelog. It prints one line for each
 * thing that it checks: HOLDS or VIOLATED, its name, and what was seen, joined by tabs. It ends with 1 when something is violated.
 *
 * <p>Ids of commands are c0, c1, …, so that ten million of them fit into a few bit sets.
 */
public class ChaosAudit {
    private static final int SHOWN = 5;

    private final Properties settings = new Properties();
    private final Map<String, List<String>> violations = new HashMap<>();
    private boolean failed;

    /** By number: which ids were sent, which left an event or an outcome other than a conflict. */
    private final BitSet sent = new BitSet();
    private final BitSet decided = new BitSet();
    /** By partition and offset: which commands had no such id, which of them left something. */
    private final Map<Integer, BitSet> nameless = new HashMap<>();
    private final Map<Integer, BitSet> settled = new HashMap<>();
    /** By account. */
    private final Map<String, long[]> accounts = new HashMap<>();
    private long commands, events, outcomes, conflicts, letters, deposited, withdrawn;

    public static void main(String[] arguments) throws Exception {
        System.exit(new ChaosAudit().run(arguments) ? 0 : 1);
    }

    private boolean run(String[] arguments) throws Exception {
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("enable.auto.commit", "false");
        settings.put("allow.auto.create.topics", "false");
        settings.put("fetch.max.bytes", "16777216");
        settings.put("max.poll.records", "5000");
        String group = arguments[1];
        List<String> topics = List.of(arguments).subList(2, 7);
        read(topics.get(0), this::command);
        read(topics.get(1), this::event);
        read(topics.get(2), this::outcome);
        read(topics.get(3), this::letter);
        close();
        try (Admin admin = Admin.create(settings)) {
            rest(admin, group, topics);
        }
        return !failed;
    }

    private void read(String topic, Consumer<ConsumerRecord<byte[], byte[]>> each) {
        Map<TopicPartition, Long> ends = ends(topic, "read_committed");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer("read_committed")) {
            consumer.assign(ends.keySet());
            consumer.seekToBeginning(ends.keySet());
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                consumer.poll(Duration.ofMillis(200)).forEach(each);
            }
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer(String isolation) {
        Properties own = new Properties();
        own.putAll(settings);
        own.put("isolation.level", isolation);
        return new KafkaConsumer<>(own, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private Map<TopicPartition, Long> ends(String topic, String isolation) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(isolation)) {
            Collection<TopicPartition> partitions =
                    consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
            return consumer.endOffsets(partitions);
        }
    }

    private void command(ConsumerRecord<byte[], byte[]> record) {
        commands++;
        int number = number(text(record, "ce_id"));
        if (number >= 0) {
            sent.set(number);
        } else {
            nameless.computeIfAbsent(record.partition(), p -> new BitSet()).set((int) record.offset());
        }
    }

    /** What a command left: an event, or an outcome that is no conflict. */
    private void trace(ConsumerRecord<byte[], byte[]> record) {
        // layout (1), flags (1), topic id (16), partition (4), offset (8), timestamp (8), digest (8), index (2), count (2), writer (4)
        byte[] input = bytes(record, "es_input");
        if (input == null || input.length != 54) {
            violated("each command id has exactly one outcome", place(record) + " does not say where it came from");
            return;
        }
        ByteBuffer from = ByteBuffer.wrap(input);
        if (from.getInt(18) != record.partition()) {
            violated("each command id has exactly one outcome", place(record) + " came from another partition");
        }
        // Each command of the bank leaves one record at the most.
        if (from.getShort(46) != 0 || from.getShort(48) != 1) {
            violated("each command id has exactly one outcome", place(record) + " is one of several records of its command");
        }
        int number = number(text(record, "ce_causationid"));
        if (number >= 0) {
            if (!sent.get(number) || decided.get(number)) {
                violated("each command id has exactly one outcome", place(record) + ": the command c" + number + (sent.get(number) ? " had an outcome before" : " was never sent"));
            }
            decided.set(number);
        } else {
            settle(record, record.partition(), from.getLong(22));
        }
    }

    private void settle(ConsumerRecord<byte[], byte[]> record, int partition, long offset) {
        BitSet known = nameless.computeIfAbsent(partition, p -> new BitSet());
        BitSet seen = settled.computeIfAbsent(partition, p -> new BitSet());
        if (!known.get((int) offset) || seen.get((int) offset)) {
            violated("each command without an id has exactly one outcome", place(record) + " is of input " + offset + ", which is none of these, or had one before");
        }
        seen.set((int) offset);
    }

    private void event(ConsumerRecord<byte[], byte[]> record) {
        events++;
        trace(record);
        // number of events, balance
        long[] account = accounts.computeIfAbsent(new String(record.key(), StandardCharsets.UTF_8), key -> new long[2]);
        String sequence = text(record, "ce_sequence");
        if (sequence == null || Long.parseLong(sequence) != account[0] + 1) {
            violated("ce_sequence is gapless", place(record) + " is number " + sequence + " and follows number " + account[0]);
        }
        account[0]++;
        String type = text(record, "ce_type");
        long amount = "Deposited".equals(type) || "Withdrawn".equals(type) ? amount(record) : 0;
        // Amounts are unsigned; the sums over all accounts are taken modulo 2^64.
        if ("Deposited".equals(type)) {
            if (Long.compareUnsigned(account[1] + amount, amount) < 0) {
                violated("no balance is ever negative", place(record) + " overflows: " + Long.toUnsignedString(account[1]) + " + " + Long.toUnsignedString(amount));
            }
            account[1] += amount;
            deposited += amount;
        } else if ("Withdrawn".equals(type)) {
            if (Long.compareUnsigned(account[1], amount) < 0) {
                violated("no balance is ever negative", place(record) + " leaves " + Long.toUnsignedString(account[1]) + " - " + Long.toUnsignedString(amount));
            }
            account[1] -= amount;
            withdrawn += amount;
        }
    }

    private void outcome(ConsumerRecord<byte[], byte[]> record) {
        outcomes++;
        if ("Conflict".equals(text(record, "ce_type"))) {
            conflicts++;
            int number = number(text(record, "ce_causationid"));
            if (number < 0 || !sent.get(number)) {
                violated("each command id has exactly one outcome", place(record) + " is a conflict over an id that was never sent");
            }
        } else {
            trace(record);
        }
    }

    private void letter(ConsumerRecord<byte[], byte[]> record) {
        letters++;
        int number = number(text(record, "ce_id"));
        if (number >= 0) {
            violated("dead letters are of rubbish alone", place(record) + " is of the command c" + number + ": " + text(record, "es_detail"));
        } else {
            settle(record, Integer.parseInt(text(record, "es_origin_partition")), Long.parseLong(text(record, "es_origin_offset")));
        }
    }

    private void close() {
        BitSet forgotten = (BitSet) sent.clone();
        forgotten.andNot(decided);
        forgotten.stream().limit(SHOWN).forEach(id -> violated("each command id has exactly one outcome", "the command c" + id + " has none"));
        nameless.forEach((partition, known) -> {
            BitSet left = (BitSet) known.clone();
            left.andNot(settled.getOrDefault(partition, new BitSet()));
            left.stream().limit(SHOWN).forEach(offset ->
                    violated("each command without an id has exactly one outcome", "that at partition " + partition + " offset " + offset + " has none"));
        });
        long balances = accounts.values().stream().mapToLong(account -> account[1]).sum();
        String sum = Long.toUnsignedString(deposited) + " - " + Long.toUnsignedString(withdrawn);
        if (balances != deposited - withdrawn) {
            violated("the balances are deposits less withdrawals", sum + " is not " + Long.toUnsignedString(balances));
        }
        tell("each command id has exactly one outcome", commands + " commands with " + sent.cardinality() + " ids: " + events + " events, " + outcomes + " outcomes, " + conflicts + " of them conflicts");
        tell("each command without an id has exactly one outcome", nameless.values().stream().mapToInt(BitSet::cardinality).sum() + " commands");
        tell("dead letters are of rubbish alone", letters + " dead letters");
        tell("ce_sequence is gapless", events + " events of " + accounts.size() + " accounts");
        tell("no balance is ever negative", events + " prefixes");
        tell("the balances are deposits less withdrawals", sum + " = " + Long.toUnsignedString(balances) + " (modulo 2^64)");
    }

    private void rest(Admin admin, String group, List<String> topics) throws Exception {
        int partitions = 0;
        for (String topic : topics) {
            Map<TopicPartition, Long> stable = ends(topic, "read_committed");
            for (Map.Entry<TopicPartition, Long> end : ends(topic, "read_uncommitted").entrySet()) {
                partitions++;
                if (!end.getValue().equals(stable.get(end.getKey()))) {
                    violated("no transaction hangs", end.getKey() + " is stable to " + stable.get(end.getKey()) + ", and its end is " + end.getValue());
                }
            }
        }
        Collection<TransactionListing> transactions = admin.listTransactions().all().get();
        for (TransactionListing transaction : transactions) {
            boolean over = List.of(TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT, TransactionState.EMPTY).contains(transaction.state());
            if (!over) {
                violated("no transaction hangs", transaction.transactionalId() + " is " + transaction.state());
            }
        }
        tell("no transaction hangs", partitions + " partitions, " + transactions.size() + " transactional ids");
        Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        Map<TopicPartition, Long> ends = ends(topics.get(0), "read_uncommitted");
        ends.forEach((partition, end) -> {
            OffsetAndMetadata offset = committed.get(partition);
            if (offset == null ? end != 0 : offset.offset() != end) {
                violated("the committed offsets are the ends", partition + ": " + offset + ", and the end is " + end);
            }
        });
        tell("the committed offsets are the ends", ends.size() + " partitions");
    }

    private void violated(String name, String what) {
        failed = true;
        List<String> known = violations.computeIfAbsent(name, n -> new ArrayList<>());
        if (known.size() < SHOWN) {
            known.add(what);
        }
    }

    private void tell(String name, String seen) {
        List<String> found = violations.get(name);
        if (found == null) {
            System.out.println("HOLDS\t" + name + "\t" + seen);
        } else {
            found.forEach(what -> System.out.println("VIOLATED\t" + name + "\t" + what));
        }
    }

    /** The number in an id c0, c1, …; -1 for any other, or none. */
    private static int number(String id) {
        return id != null && id.matches("c[0-9]{1,9}") ? Integer.parseInt(id.substring(1)) : -1;
    }

    /** The amount in {"amount":5}. */
    private static long amount(ConsumerRecord<byte[], byte[]> record) {
        String value = new String(record.value(), StandardCharsets.UTF_8);
        int at = value.indexOf("\"amount\":") + "\"amount\":".length();
        int end = at;
        while (end < value.length() && Character.isDigit(value.charAt(end))) {
            end++;
        }
        return Long.parseUnsignedLong(value.substring(at, end));
    }

    private static byte[] bytes(ConsumerRecord<byte[], byte[]> record, String name) {
        Header header = record.headers().lastHeader(name);
        return header == null ? null : header.value();
    }

    private static String text(ConsumerRecord<byte[], byte[]> record, String name) {
        byte[] value = bytes(record, name);
        return value == null ? null : new String(value, StandardCharsets.UTF_8);
    }

    private static String place(ConsumerRecord<byte[], byte[]> record) {
        String key = record.key() == null ? "" : new String(record.key(), StandardCharsets.UTF_8);
        return record.topic() + "[" + record.partition() + "] offset " + record.offset() + " (`" + key + "`)";
    }
}
