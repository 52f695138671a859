import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;

/**
 * The bank on Kafka Streams: the same rules, topics and JSON as `examples/bank`.
 *
 * <p>Argument: a properties file. Keys that start with `bank.` are the program's own (topics, caching, the size of the block cache), all others are
 * Kafka Streams'. What it writes to its standard output is read by the bench: `STATE name millis` and `RESTORED partition records millis`.
 *
 * <p>It is written as fast as the API allows: keys stay bytes, commands are read by Jackson's streaming parser, events are put together by hand and
 * carry no headers, and a state is 16 bytes.
 */
public class StreamsBank {
    /** An account: what is in it, and the number of its events. */
    record Account(long balance, long sequence) {}

    static final String EVENTS = "events";
    static final String OUTCOMES = "outcomes";
    static final String STORE = "accounts";

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        try (InputStream in = Files.newInputStream(Path.of(arguments[0]))) {
            settings.load(in);
        }
        long blockCache = Long.parseLong(settings.getProperty("bank.block.cache.bytes", "0"));
        if (blockCache > 0) {
            SharedBlockCache.bytes = blockCache;
            settings.put("rocksdb.config.setter", SharedBlockCache.class);
        }
        KafkaStreams streams = new KafkaStreams(topology(settings), settings);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
                });
        streams.setStateListener((now, before) -> tell("STATE " + now));
        streams.setGlobalStateRestoreListener(
                new StateRestoreListener() {
                    @Override
                    public void onRestoreStart(TopicPartition partition, String store, long from, long to) {}

                    @Override
                    public void onBatchRestored(TopicPartition partition, String store, long to, long records) {}

                    @Override
                    public void onRestoreEnd(TopicPartition partition, String store, long records) {
                        tell("RESTORED " + partition.partition() + " " + records);
                    }
                });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
    }

    static synchronized void tell(String what) {
        System.out.println(what + " " + System.currentTimeMillis());
        System.out.flush();
    }

    static Topology topology(Properties settings) {
        Serde<byte[]> bytes = Serdes.ByteArray();
        Serde<Account> accounts = Serdes.serdeFrom(new AccountWriter(), new AccountReader());
        KeyValueBytesStoreSupplier supplier = Stores.persistentKeyValueStore(STORE);
        StoreBuilder<KeyValueStore<byte[], Account>> store = Stores.keyValueStoreBuilder(supplier, bytes, accounts);
        if (Boolean.parseBoolean(settings.getProperty("bank.caching", "false"))) {
            store = store.withCachingEnabled();
        }
        return new Topology()
                .addSource("commands", bytes.deserializer(), bytes.deserializer(), settings.getProperty("bank.topics.commands"))
                .addProcessor("bank", Bank::new, "commands")
                .addStateStore(store, "bank")
                .addSink(EVENTS, settings.getProperty("bank.topics.events"), bytes.serializer(), bytes.serializer(), "bank")
                .addSink(OUTCOMES, settings.getProperty("bank.topics.outcomes"), bytes.serializer(), bytes.serializer(), "bank");
    }

    /** Decides one command after the other. */
    static class Bank implements Processor<byte[], byte[], byte[], byte[]> {
        private static final Account NEW = new Account(0, 0);
        private static final JsonFactory JSON = new JsonFactory();
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<byte[], Account> accounts;

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            this.accounts = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> command) {
            String type = null;
            long amount = 0;
            try (JsonParser json = JSON.createParser(command.value())) {
                json.nextToken();
                while (json.nextToken() == JsonToken.FIELD_NAME) {
                    String field = json.currentName();
                    json.nextToken();
                    if (field.equals("type")) {
                        type = json.getText();
                    } else if (field.equals("amount")) {
                        amount = json.getLongValue();
                    } else {
                        json.skipChildren();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            Account account = accounts.get(command.key());
            if (account == null) {
                account = NEW;
            }
            if (amount == 0) {
                answer(command, OUTCOMES, "{\"outcome\":\"nothing\"}");
            } else if ("Deposit".equals(type)) {
                accounts.put(command.key(), new Account(Math.addExact(account.balance, amount), account.sequence + 1));
                answer(command, EVENTS, "{\"type\":\"Deposited\",\"amount\":" + amount + "}");
            } else if (!"Withdraw".equals(type)) {
                throw new IllegalArgumentException("there is no command " + type);
            } else if (amount > account.balance) {
                long missing = amount - account.balance;
                answer(command, OUTCOMES, "{\"outcome\":\"rejected\",\"reason\":{\"Overdrawn\":{\"missing\":" + missing + "}}}");
            } else {
                accounts.put(command.key(), new Account(account.balance - amount, account.sequence + 1));
                answer(command, EVENTS, "{\"type\":\"Withdrawn\",\"amount\":" + amount + "}");
            }
        }

        private void answer(Record<byte[], byte[]> command, String sink, String json) {
            context.forward(command.withValue(json.getBytes(StandardCharsets.ISO_8859_1)), sink);
        }
    }

    static class AccountWriter implements Serializer<Account> {
        @Override
        public byte[] serialize(String topic, Account account) {
            return account == null ? null : ByteBuffer.allocate(16).putLong(account.balance).putLong(account.sequence).array();
        }
    }

    static class AccountReader implements Deserializer<Account> {
        @Override
        public Account deserialize(String topic, byte[] bytes) {
            if (bytes == null) {
                return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Account(buffer.getLong(), buffer.getLong());
        }
    }

    /** One cache of blocks for all stores of the process, instead of 50 MB for each. */
    public static class SharedBlockCache implements RocksDBConfigSetter {
        static long bytes;
        private static Cache cache;

        @Override
        public void setConfig(String store, Options options, Map<String, Object> settings) {
            synchronized (SharedBlockCache.class) {
                if (cache == null) {
                    cache = new LRUCache(bytes);
                }
            }
            BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
            table.setBlockCache(cache);
            options.setTableFormatConfig(table);
        }

        @Override
        public void close(String store, Options options) {}
    }
}
